"""Methods: the plugin contract, the registry and the built-in baselines."""
