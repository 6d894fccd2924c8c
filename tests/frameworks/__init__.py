"""The plugin under other people's frameworks, each in its own environment. `python -m tests.frameworks --help` shows the usage.

To add a framework: a module here that declares FRAMEWORK, its name in `table.NAMES`, its page in docs/use-with, and `python -m
tests.frameworks --record --table NAME`. A module must import its framework only inside functions, because other processes
import the module without the framework.
"""
