package tpm

import (
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// First handles of the ranges that hold volatile resources (TPM 2.0 part 2,
// section 7.2): objects, loaded sessions, saved sessions.
const (
	firstTransient     = tpm2.TPMHandle(0x80000000)
	firstLoadedSession = tpm2.TPMHandle(0x02000000)
	firstSavedSession  = tpm2.TPMHandle(0x03000000)
)

// flushStale removes every volatile resource. The connection is new, so none of
// them is in use.
func flushStale(x transport.TPM) error {
	for _, first := range []tpm2.TPMHandle{firstTransient, firstLoadedSession, firstSavedSession} {
		handles, err := listHandles(x, first)
		if err != nil {
			return err
		}
		for _, h := range handles {
			if err := flush(x, h); err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
				return err
			}
		}
	}
	return nil
}

// listHandles returns the handles in use from first to the end of its range.
func listHandles(x transport.TPM, first tpm2.TPMHandle) ([]tpm2.TPMHandle, error) {
	rsp, err := tpm2.GetCapability{
		Capability:    tpm2.TPMCapHandles,
		Property:      uint32(first),
		PropertyCount: 254,
	}.Execute(x)
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		return nil, err
	}
	return list.Handle, nil
}

// Resources counts the volatile resources in use: objects and sessions. It is
// the number of this connection on /dev/tpmrm0, of the whole TPM on a socket.
func (t *TPM) Resources() (objects, sessions int, err error) {
	err = t.do("count the TPM's resources", func(x transport.TPM) error {
		o, err := listHandles(x, firstTransient)
		if err != nil {
			return err
		}
		// The list of loaded sessions ends where that of saved ones begins.
		l, err := listHandles(x, firstLoadedSession)
		if err != nil {
			return err
		}
		s, err := listHandles(x, firstSavedSession)
		objects, sessions = len(o), len(l)+len(s)
		return err
	})
	return objects, sessions, err
}

func flush(x transport.TPM, h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(x)
	return err
}
