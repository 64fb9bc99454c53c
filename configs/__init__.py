"""Presets: one TOML file a scenario, read by `gossamer.index.presets.load_preset`."""
