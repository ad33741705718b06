"""Process entry points that forward packets. No policy lives here."""

# A worker is started by name in a fresh interpreter: under two names it would be two modules.
if __name__ != "lbfwd.workers":
    raise ImportError(f"import this package as lbfwd.workers, not as {__name__}")
