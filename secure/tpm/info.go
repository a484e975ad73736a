package tpm

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// identify reads the fixed properties into t.info.
func (t *TPM) identify(x transport.TPM) error {
	rsp, err := tpm2.GetCapability{
		Capability:    tpm2.TPMCapTPMProperties,
		Property:      uint32(tpm2.TPMPTManufacturer),
		PropertyCount: 8,
	}.Execute(x)
	if err != nil {
		return err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return err
	}
	values := make(map[tpm2.TPMPT]uint32)
	for _, p := range list.TPMProperty {
		values[p.Property] = p.Value
	}
	t.info.Manufacturer = letters(values[tpm2.TPMPTManufacturer])
	t.info.Vendor = letters(values[tpm2.TPMPTVendorString1], values[tpm2.TPMPTVendorString2],
		values[tpm2.TPMPTVendorString3], values[tpm2.TPMPTVendorString4])
	v1, v2 := values[tpm2.TPMPTFirmwareVersion1], values[tpm2.TPMPTFirmwareVersion2]
	t.info.Firmware = fmt.Sprintf("%d.%d.%d.%d", v1>>16, v1&0xffff, v2>>16, v2&0xffff)
	t.info.Address = t.addr
	t.info.IsSoftware = isSoftware(t.info)
	return nil
}

// isSoftware recognises swtpm (libtpms says IBM and "SW   TPM") and the
// reference simulator (MSFT). A kernel device can be swtpm as well (a virtual
// machine's), and a socket is never hardware.
func isSoftware(i Info) bool {
	return i.Transport == "socket" || strings.HasPrefix(i.Vendor, "SW ") || strings.HasPrefix(i.Vendor, "xCG fTPM") || i.Manufacturer == "MSFT"
}

// letters decodes property values that hold four characters each.
func letters(values ...uint32) string {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b))
	return strings.TrimSpace(clean)
}
