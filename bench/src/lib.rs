//! Load and measurements.
