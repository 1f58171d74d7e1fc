package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	pairlink "github.com/spooksystems/gateway/engine/link"
)

var (
	descSiteState  = gaugeDesc("site_state", "1 for the state that the pair with a site is in.", "domain", "site", "state")
	descSiteThere  = gaugeDesc("site_lacks_there", "Candidates that a site lacks, as far as is known here.", "domain", "site")
	descSiteHere   = gaugeDesc("site_lacks_here", "Candidates that a site has and this gateway lacks.", "domain", "site")
	descSiteFlying = gaugeDesc("site_unacknowledged_bytes", "Bytes on their way to a site.", "domain", "site")
	descSiteSkew   = gaugeDesc("site_clock_skew_seconds", "How far a site's clock is ahead of this one.", "domain", "site")
	descSiteEqual  = gaugeDesc("site_equal", "1 if the hash over a site's registers was this gateway's when it last said.", "domain", "site")
	descSiteBytes  = counterDesc("site_bytes_total", "Bytes of frames since the start.", "domain", "site", "direction")
	descSiteMoved  = counterDesc("site_candidates_total", "Candidates since the start.", "domain", "site", "direction")
	descSiteCalls  = counterDesc("site_connections_total", "Connections since the start.", "domain", "site")
)

func counterDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

// siteStates are the states in which a pair can be.
var siteStates = []pairlink.State{pairlink.Accepted, pairlink.Reentangling, pairlink.Entangled, pairlink.Decohered}

// collectSites gives the figures of pairs. One that was dissolved has none.
func collectSites(ch chan<- prometheus.Metric, domains []*Sites) {
	for _, d := range domains {
		for _, s := range d.Sites {
			if s.State == string(pairlink.DissolvedPair) {
				continue
			}
			gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
				ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, append([]string{d.Domain, s.Name}, labels...)...)
			}
			counter := func(desc *prometheus.Desc, v uint64, labels ...string) {
				ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), append([]string{d.Domain, s.Name}, labels...)...)
			}
			for _, state := range siteStates {
				gauge(descSiteState, oneIf(s.State == string(state)), string(state))
			}
			gauge(descSiteThere, float64(s.LacksThere))
			gauge(descSiteHere, float64(s.LacksHere))
			gauge(descSiteFlying, float64(s.Flying))
			gauge(descSiteSkew, float64(s.SkewMS)/1000)
			gauge(descSiteEqual, oneIf(s.Root == d.Root))
			counter(descSiteBytes, s.BytesIn, "in")
			counter(descSiteBytes, s.BytesOut, "out")
			counter(descSiteMoved, s.In, "in")
			counter(descSiteMoved, s.Out, "out")
			counter(descSiteCalls, s.Connections)
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
