"""The plugin under other people's frameworks, each in an environment of its own. `python -m tests.frameworks --help` says how."""
