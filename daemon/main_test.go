package main

import (
	"os"
	"testing"
)

// testMainEnv makes the test binary behave as vigild, so that tests may start, signal and kill a real process of it.
const testMainEnv = "VIGIL_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(testMainEnv) == "1" {
		main() // exits
	}
	os.Exit(m.Run())
}
