package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Where a wrapper names another gateway for its server, it stands by, and the gateway is ready all the same.
func TestFeedStandsBy(t *testing.T) {
	attached := func(site string) string {
		return fmt.Sprintf("sites { name = %q }\n", site) + strings.Replace(oneWrapper, `listen = "127.0.0.1:0"`, "upstream = \"line://127.0.0.1:1\"\n  feed = \"gw-a\"", 1)
	}
	s := newStage(t, attached("gw-b"), nil)
	if w := s.wrapper("a"); w.State != stateStandsBy {
		t.Errorf("got %+v", w)
	}
	if err := s.g.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
}

// A gateway that can't be called makes no invitation, and says what is missing.
func TestOfferWithoutADoor(t *testing.T) {
	s := newStage(t, oneWrapper, nil)
	session := &session{domain: s.g.domains.first()}
	if _, err := s.g.callPairOffer(t.Context(), session, json.RawMessage(`{}`)); err == nil || !strings.Contains(err.Error(), "sites { listen") {
		t.Errorf("got %v", err)
	}
	s.stop()
	s.configure("sites { listen = \"127.0.0.1:0\" }\n" + oneWrapper)
	s.start()
	session.domain = s.g.domains.first()
	got, err := s.g.callPairOffer(t.Context(), session, json.RawMessage(`{}`))
	if o, ok := got.(PairOffer); err != nil || !ok || o.Address != s.g.siteDoor.Addr().String() || !strings.HasPrefix(o.Invitation, "spookgw-pair-") {
		t.Errorf("got %+v, %v", got, err)
	}
}
