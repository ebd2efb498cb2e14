"""The wire: one servicer per proto service, one bridge for errors, one conversion each way."""
