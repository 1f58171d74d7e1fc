package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/spooksystems/gateway/daemonclient"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"spookgw": main})
}

// TestScripts runs testdata/script: the program as it is called, and what it prints. Beyond the
// usual commands there is
//
//	ready    waits until a gateway answers at $SPOOKGW_SOCKET
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "sg") // a socket's path is short
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("SPOOKGW_SOCKET", filepath.Join(dir, "s"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": func(ts *testscript.TestScript, _ bool, _ []string) {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				for {
					c, err := daemonclient.Dial(ctx, ts.Getenv("SPOOKGW_SOCKET"))
					if err == nil {
						c.Close()
						return
					}
					select {
					case <-ctx.Done():
						ts.Fatalf("no gateway: %v", err)
					case <-time.After(10 * time.Millisecond): // a socket can't be waited for
					}
				}
			},
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}
