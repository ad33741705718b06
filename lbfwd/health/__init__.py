"""Whether backends serve: probes, verdicts, and what a pool makes of them."""
