"""The kernel's networking as lbfwd needs it: packet programs, guard, routes and neighbours."""
