// Package secure holds the device's keys: it turns one secret that only this
// machine's TPM can open into the keys that protect everything at rest, and
// gives the device its identity on the network.
//
//	TPM 2.0: root secret, 32 bytes, sealed (package tpm)
//	  `- KEK per purpose and version, wrapped under a key derived from the root
//	       `- DEK per record, wrapped under a KEK; deleting it erases the record
//
// Every ciphertext is an envelope (see Key.Seal for its bytes) that names its
// format and key version and is bound by its AAD to the bucket, key and schema
// it was made for: moved elsewhere it does not open.
//
// Raw keys live in mem.Buffer and are zeroed by Close. What that does not
// cover: crypto/aes expands a key on the Go heap, and crypto/hkdf and go-tpm
// work there too. Such a cipher is made for one call and dropped, never cached,
// so its copy lives until the collector reuses the memory; a build with
// GOEXPERIMENT=runtimesecret has the runtime erase it as soon as it is
// unreachable. A stopped process with ptrace rights against it is outside what
// this package defends.
//
// A Device owns its TPM connection, Keyring and signer, and one Close releases
// them all. A Key and a Keyring may be used by many goroutines at once; Close
// waits for calls in progress. Nothing here starts a goroutine or logs.
package secure
