// Package securetest runs the software TPM for tests and for the demo, listens
// in on it, and judges what an eavesdropper learns. Only tests and the demo
// import it: it starts processes.
//
// StartSWTPM owns one swtpm process until its stop function is called.
// StartProxy owns a socket and its goroutines until Close. ParseTranscript,
// Check and CheckRoot are pure: bytes in, findings out.
package securetest
