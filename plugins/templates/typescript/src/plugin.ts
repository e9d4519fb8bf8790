/** Passes on the reports of who flies low. */
import { Reject, defineTransform, jsonOf } from "../sdk/tidemill";

interface Config {
  /** Feet above the sea. */
  below_ft: number;
}

export const { lifecycle, transforming } = defineTransform<Config>({
  name: "{{name}}",
  version: "0.1.0",
  description: "Passes on the reports of who flies low",
  configSchema: {
    type: "object",
    required: ["below_ft"],
    additionalProperties: false,
    properties: { below_ft: { type: "number" } },
  },
  setup(config) {
    return (message, emit) => {
      const report = jsonOf(message) as { altitude?: unknown } | null;
      const altitude = report?.altitude;
      if (typeof altitude !== "number") throw new Reject("payload: field `altitude`: not a number");
      if (altitude < config.below_ft) emit({ key: message.key, headers: message.headers, payload: message.payload });
    };
  },
});
