package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// testMainEnv makes the test binary behave as vigild, so that tests may start, signal and kill a real process of it.
const testMainEnv = "VIGIL_TEST_MAIN"

// TestMain also lets scripts run the command `vigild` as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(testMainEnv) == "1" {
		main() // exits
	}
	testscript.Main(m, map[string]func(){"vigild": main})
}
