"""A user_cost.json in the format of LiteLLM's class."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

FILE = Path("user_cost.json")
JUST_NOW = float(int(time.time()))
"""No window that begins now ends while the tests run."""
RECORDS: dict[str, Any] = {
    "alice": {"total_budget": 10, "current_cost": 0.5, "model_cost": {"gpt-4o": 0.5}},
    "bob": {"total_budget": 2, "duration": 7, "created_at": JUST_NOW - 7, "last_updated_at": JUST_NOW},
    "carol": {"total_budget": 0, "current_cost": 0, "model_cost": {}},
}


def put_file(records: Any) -> None:
    """Write a file with these records, or this text, in the working directory."""
    FILE.write_text(records if isinstance(records, str) else json.dumps(records, indent=4))
