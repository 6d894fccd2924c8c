"""Code that the ASGI and the WSGI middleware share. Private: applications use `litellm_budget_plugin.asgi` and
`litellm_budget_plugin.wsgi`.
"""
