// Command spookgw is the Spook Gateway: it lets legacy clients of different protocols share one
// durable state. `spookgw demo` shows it in one command.
package main

import (
	"os"
	_ "time/tzdata" // time zones, also where the system has none

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/http"
	"github.com/spooksystems/gateway/wrappers/ldap"
	"github.com/spooksystems/gateway/wrappers/mqtt"
	"github.com/spooksystems/gateway/wrappers/sql"
)

// protocols are all that this program speaks. Nothing else in the tree lists them.
var protocols = []wrappers.Protocol{http.Protocol, ldap.Protocol, mqtt.Protocol, sql.Protocol}

func main() {
	a := &app{in: os.Stdin, out: os.Stdout, errs: os.Stderr}
	os.Exit(a.run(os.Args[1:]))
}
