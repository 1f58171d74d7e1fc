package ldapwire

// Extended operations and unsolicited notifications.
const (
	OIDNoticeOfDisconnection = "1.3.6.1.4.1.1466.20036"  // RFC 4511, section 4.4.1
	OIDStartTLS              = "1.3.6.1.4.1.1466.20037"  // RFC 4511, section 4.14
	OIDPasswordModify        = "1.3.6.1.4.1.4203.1.11.1" // RFC 3062
	OIDWhoAmI                = "1.3.6.1.4.1.4203.1.11.3" // RFC 4532
	OIDCancel                = "1.3.6.1.1.8"             // RFC 3909
	OIDStartTransaction      = "1.3.6.1.1.21.1"          // RFC 5805
	OIDEndTransaction        = "1.3.6.1.1.21.3"          // RFC 5805
	OIDAbortedTransaction    = "1.3.6.1.1.21.4"          // RFC 5805: a notice
)

// Controls.
const (
	OIDAssertion           = "1.3.6.1.1.12"              // RFC 4528
	OIDPreRead             = "1.3.6.1.1.13.1"            // RFC 4527
	OIDPostRead            = "1.3.6.1.1.13.2"            // RFC 4527
	OIDTransaction         = "1.3.6.1.1.21.2"            // RFC 5805: the operation is part of one
	OIDManageDsaIT         = "2.16.840.1.113730.3.4.2"   // RFC 3296
	OIDProxiedAuthz        = "2.16.840.1.113730.3.4.18"  // RFC 4370
	OIDSubentries          = "1.3.6.1.4.1.4203.1.10.1"   // RFC 3672
	OIDPagedResults        = "1.2.840.113556.1.4.319"    // RFC 2696
	OIDServerSort          = "1.2.840.113556.1.4.473"    // RFC 2891
	OIDSortResponse        = "1.2.840.113556.1.4.474"    // RFC 2891
	OIDTreeDelete          = "1.2.840.113556.1.4.805"    // draft-armijo-ldap-treedelete
	OIDDirSync             = "1.2.840.113556.1.4.841"    // MS-ADTS, section 3.1.1.3.4.1.3
	OIDShowDeleted         = "1.2.840.113556.1.4.417"    // MS-ADTS, section 3.1.1.3.4.1.14
	OIDSyncRequest         = "1.3.6.1.4.1.4203.1.9.1.1"  // RFC 4533
	OIDSyncState           = "1.3.6.1.4.1.4203.1.9.1.2"  // RFC 4533
	OIDSyncDone            = "1.3.6.1.4.1.4203.1.9.1.3"  // RFC 4533
	OIDSyncInfo            = "1.3.6.1.4.1.4203.1.9.1.4"  // RFC 4533: an intermediate response
	OIDPersistent          = "2.16.840.1.113730.3.4.3"   // draft-ietf-ldapext-psearch
	OIDEntryChange         = "2.16.840.1.113730.3.4.7"   // draft-ietf-ldapext-psearch
	OIDRelax               = "1.3.6.1.4.1.4203.666.5.12" // draft-zeilenga-ldap-relax
	OIDDontUseCopy         = "1.3.6.1.1.22"              // RFC 6171
	OIDFeatureAllOpAttrs   = "1.3.6.1.4.1.4203.1.5.1"    // RFC 3673: "+" among the attributes
	OIDFeatureAbsoluteBool = "1.3.6.1.4.1.4203.1.5.3"    // RFC 4526: (&) and (|)
	OIDFeatureIncrement    = "1.3.6.1.1.14"              // RFC 4525
)
