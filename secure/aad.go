package secure

import "encoding/binary"

// AAD binds a ciphertext to the place it was made for. Two different AADs never
// have the same encoding.
type AAD struct {
	Bucket string // collection the record lives in, such as a bbolt bucket
	Key    string // record within the bucket; any bytes
	Schema uint16 // version of the plaintext's layout
}

// Domains keep ciphertexts of different kinds apart, so that a wrapped key can
// never be passed off as data or the other way round.
const (
	domainData = "vigil/1 data"
	domainDEK  = "vigil/1 dek"
	domainKEK  = "vigil/1 kek"
)

// encode returns the authenticated data: the envelope's header, then domain,
// bucket and key, each prefixed by its length as a big-endian uint32, then the
// schema as a big-endian uint16.
func (a AAD) encode(domain string, header []byte) []byte {
	out := make([]byte, 0, 4*4+len(header)+len(domain)+len(a.Bucket)+len(a.Key)+2)
	for _, part := range []string{string(header), domain, a.Bucket, a.Key} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return binary.BigEndian.AppendUint16(out, a.Schema)
}
