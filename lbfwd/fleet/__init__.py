"""What several nodes have in common: etcd, and what nodes tell each other."""
