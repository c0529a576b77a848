//! The daemon as a library: faces, engine, policy, configuration, telemetry.
