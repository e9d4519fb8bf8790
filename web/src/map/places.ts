// Places the map names: cities with the zoom from which they are worth a label, and the busiest airports.

export interface Place {
  name: string;
  lat: number;
  lon: number;
  /** Zoom relative to the whole country from which the label is shown. */
  from: number;
}

const city = (name: string, lat: number, lon: number, from: number): Place => ({ name, lat, lon, from });

export const CITIES: readonly Place[] = [
  city("New York", 40.71, -74.01, 0.7),
  city("Los Angeles", 34.05, -118.24, 0.7),
  city("Chicago", 41.88, -87.63, 0.7),
  city("Houston", 29.76, -95.37, 0.7),
  city("Denver", 39.74, -104.99, 0.7),
  city("Seattle", 47.61, -122.33, 0.7),
  city("Miami", 25.76, -80.19, 0.7),
  city("Atlanta", 33.75, -84.39, 0.7),
  city("San Francisco", 37.77, -122.42, 0.7),
  city("Dallas", 32.78, -96.8, 0.7),
  city("Minneapolis", 44.98, -93.27, 0.7),
  city("Phoenix", 33.45, -112.07, 0.7),
  city("Boston", 42.36, -71.06, 1.4),
  city("Washington", 38.91, -77.04, 1.4),
  city("Salt Lake City", 40.76, -111.89, 1.4),
  city("Kansas City", 39.1, -94.58, 1.4),
  city("New Orleans", 29.95, -90.07, 1.4),
  city("Las Vegas", 36.17, -115.14, 1.6),
  city("Portland", 45.52, -122.68, 1.6),
  city("Detroit", 42.33, -83.05, 1.6),
  city("St. Louis", 38.63, -90.2, 1.6),
  city("Charlotte", 35.23, -80.84, 1.6),
  city("Nashville", 36.16, -86.78, 1.8),
  city("San Antonio", 29.42, -98.49, 1.8),
  city("Albuquerque", 35.08, -106.65, 1.8),
  city("Boise", 43.62, -116.2, 1.8),
  city("Billings", 45.78, -108.5, 1.8),
  city("San Diego", 32.72, -117.16, 2),
  city("Philadelphia", 39.95, -75.17, 2.4),
  city("Cleveland", 41.5, -81.69, 2.2),
  city("Orlando", 28.54, -81.38, 2.2),
  city("Memphis", 35.15, -90.05, 2.2),
  city("Oklahoma City", 35.47, -97.52, 2.2),
  city("Omaha", 41.26, -95.94, 2.2),
  city("Indianapolis", 39.77, -86.16, 2.4),
  city("Fargo", 46.88, -96.79, 2.4),
  city("El Paso", 31.76, -106.49, 2.4),
  city("Tampa", 27.95, -82.46, 3),
  city("Austin", 30.27, -97.74, 3),
  city("Columbus", 39.96, -83, 3),
  city("Pittsburgh", 40.44, -80, 3),
  city("Sacramento", 38.58, -121.49, 3),
  city("Spokane", 47.66, -117.43, 3),
  city("Reno", 39.53, -119.81, 3),
  city("Raleigh", 35.78, -78.64, 3),
  city("Jacksonville", 30.33, -81.66, 3),
  city("Milwaukee", 43.04, -87.91, 3.4),
  city("Buffalo", 42.89, -78.88, 3),
  city("Cincinnati", 39.1, -84.51, 3.4),
  city("Tucson", 32.22, -110.97, 3.4),
  city("Des Moines", 41.59, -93.62, 3.4),
  city("Little Rock", 34.75, -92.29, 3.4),
  city("Birmingham", 33.52, -86.8, 3.4),
  city("Wichita", 37.69, -97.34, 3.4),
  city("Rapid City", 44.08, -103.23, 3.4),
  city("Portland, Maine", 43.66, -70.26, 3),
  city("Fresno", 36.74, -119.79, 4),
  city("Norfolk", 36.85, -76.29, 4),
  city("Richmond", 37.54, -77.44, 5),
  city("Baltimore", 39.29, -76.61, 6),
  city("San José", 37.34, -121.89, 7),
  city("Fort Worth", 32.75, -97.33, 9),
];

export const AIRPORTS: readonly Place[] = (
  [
    ["ATL", 33.6407, -84.4277], ["DFW", 32.8998, -97.0403], ["DEN", 39.8561, -104.6737], ["ORD", 41.9742, -87.9073],
    ["LAX", 33.9416, -118.4085], ["JFK", 40.6413, -73.7781], ["LAS", 36.084, -115.1537], ["MCO", 28.4312, -81.3081],
    ["MIA", 25.7959, -80.287], ["CLT", 35.2144, -80.9473], ["SEA", 47.4502, -122.3088], ["PHX", 33.4352, -112.0101],
    ["EWR", 40.6895, -74.1745], ["SFO", 37.6213, -122.379], ["IAH", 29.9902, -95.3368], ["BOS", 42.3656, -71.0096],
    ["FLL", 26.0742, -80.1506], ["MSP", 44.8848, -93.2223], ["LGA", 40.7769, -73.874], ["DTW", 42.2162, -83.3554],
    ["PHL", 39.8744, -75.2424], ["SLC", 40.7899, -111.9791], ["DCA", 38.8512, -77.0402], ["SAN", 32.7338, -117.1933],
    ["BWI", 39.1774, -76.6684], ["TPA", 27.9772, -82.5311], ["AUS", 30.1975, -97.6664], ["IAD", 38.9531, -77.4565],
    ["BNA", 36.1263, -86.6774], ["MDW", 41.7868, -87.7522], ["PDX", 45.5898, -122.5951], ["STL", 38.7503, -90.3755],
    ["MSY", 29.9911, -90.2592], ["OAK", 37.7126, -122.2197], ["MCI", 39.2976, -94.7139], ["SAT", 29.5312, -98.4683],
    ["MEM", 35.0424, -89.9767], ["SDF", 38.1744, -85.736], ["CVG", 39.0533, -84.663], ["ABQ", 35.0402, -106.6092],
    ["BOI", 43.5644, -116.2228], ["BIL", 45.8077, -108.5428], ["OMA", 41.3032, -95.8941], ["PIT", 40.4915, -80.2329],
  ] as const
).map(([name, lat, lon]) => ({ name, lat, lon, from: 5 }));
