//! The edge between hot and archived records, while both move.
