"""The admin socket: HTTP and JSON on a UNIX socket."""
