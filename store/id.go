package store

// ID returns the random id the store got when it was made, in hex. It numbers nothing and names nobody: receivers use it
// to tell the outbox of this store from that of another one made later on the same device.
func (s *Store) ID() string { return s.vault.id }
