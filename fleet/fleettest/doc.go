// Package fleettest is the other side of package fleet, for tests and the demo: a throw-away certificate authority
// (PKI), two brokers that enforce mutual TLS 1.3 and an ACL by certificate (Broker, in this process, and Mosquitto, the
// real one, as a child process), a proxy that can lose acknowledgements (Proxy), and a management client (Manager).
//
// It must not be imported by product code: its keys are made in memory and protect nothing. Everything that is started
// has a Close that waits until it has ended. Only Mosquitto runs another program; NewMosquitto returns ErrNoMosquitto
// where that is not installed.
package fleettest
