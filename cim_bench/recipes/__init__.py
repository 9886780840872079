"""Ready-made recipes: functions that return one complete dataclass."""
