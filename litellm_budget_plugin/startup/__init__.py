"""The directory that `litellm-budget run` puts in front of PYTHONPATH. It must contain no other module that an
application could import.
"""
