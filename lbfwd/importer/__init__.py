"""keepalived.conf → an lbfwd configuration: source (reads) → lines → tree → translate → render.

Facts about keepalived are those of keepalived.conf(5), version 2.2.7.
"""
