"""The Flask application for gunicorn, in a process of its own."""

from __future__ import annotations

import os

import litellm

from litellm_budget_plugin import BudgetCallback
from tests.hooks.desk import Desk, register_prices
from tests.web import apps

register_prices()
litellm.callbacks = [callback := BudgetCallback(default_window="month", store_timeout=10.0)]
apps.CALL.update(Desk(callback, os.environ["PROVIDER"]).arguments("nobody"))
del apps.CALL["user"]
app = apps.flask()
