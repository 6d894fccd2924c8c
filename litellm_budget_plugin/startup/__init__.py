"""What `litellm-budget run` puts in front of PYTHONPATH: this directory. Nothing else may lie here that an application could import."""
