"""The plugin under other people's frameworks, each in an environment of its own. `python -m tests.frameworks --help` says how.

To add a framework: a module here that declares FRAMEWORK, its name in `table.NAMES`, its page in docs/use-with, and
`python -m tests.frameworks --record --table NAME`. A module imports its framework only in what it declares, because others read it.
"""
