"""The experiments, one YAML each; installed as the data of `leap.configs`."""
