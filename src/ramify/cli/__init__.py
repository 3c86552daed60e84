"""The command line: `ramify run | generate | plan | bench | info`, each with `--json`."""
