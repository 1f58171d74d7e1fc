package ldapwire

import "strconv"

// A ResultCode says how an operation ended (RFC 4511, appendix A).
type ResultCode int64

const (
	Success                      ResultCode = 0
	OperationsError              ResultCode = 1
	ProtocolError                ResultCode = 2
	TimeLimitExceeded            ResultCode = 3
	SizeLimitExceeded            ResultCode = 4
	CompareFalse                 ResultCode = 5
	CompareTrue                  ResultCode = 6
	AuthMethodNotSupported       ResultCode = 7
	StrongerAuthRequired         ResultCode = 8
	Referral                     ResultCode = 10
	AdminLimitExceeded           ResultCode = 11
	UnavailableCriticalExtension ResultCode = 12
	ConfidentialityRequired      ResultCode = 13
	SaslBindInProgress           ResultCode = 14
	NoSuchAttribute              ResultCode = 16
	UndefinedAttributeType       ResultCode = 17
	InappropriateMatching        ResultCode = 18
	ConstraintViolation          ResultCode = 19
	AttributeOrValueExists       ResultCode = 20
	InvalidAttributeSyntax       ResultCode = 21
	NoSuchObject                 ResultCode = 32
	AliasProblem                 ResultCode = 33
	InvalidDNSyntax              ResultCode = 34
	AliasDereferencingProblem    ResultCode = 36
	InappropriateAuthentication  ResultCode = 48
	InvalidCredentials           ResultCode = 49
	InsufficientAccessRights     ResultCode = 50
	Busy                         ResultCode = 51
	Unavailable                  ResultCode = 52
	UnwillingToPerform           ResultCode = 53
	LoopDetect                   ResultCode = 54
	NamingViolation              ResultCode = 64
	ObjectClassViolation         ResultCode = 65
	NotAllowedOnNonLeaf          ResultCode = 66
	NotAllowedOnRDN              ResultCode = 67
	EntryAlreadyExists           ResultCode = 68
	ObjectClassModsProhibited    ResultCode = 69
	AffectsMultipleDSAs          ResultCode = 71
	Other                        ResultCode = 80
	Canceled                     ResultCode = 118 // RFC 3909
	NoSuchOperation              ResultCode = 119
	TooLate                      ResultCode = 120
	CannotCancel                 ResultCode = 121
	AssertionFailed              ResultCode = 122  // RFC 4528
	AuthorizationDenied          ResultCode = 123  // RFC 4370
	ESyncRefreshRequired         ResultCode = 4096 // RFC 4533
)

var resultNames = map[ResultCode]string{
	Success: "success", OperationsError: "operationsError", ProtocolError: "protocolError", TimeLimitExceeded: "timeLimitExceeded",
	SizeLimitExceeded: "sizeLimitExceeded", CompareFalse: "compareFalse", CompareTrue: "compareTrue",
	AuthMethodNotSupported: "authMethodNotSupported", StrongerAuthRequired: "strongerAuthRequired", Referral: "referral",
	AdminLimitExceeded: "adminLimitExceeded", UnavailableCriticalExtension: "unavailableCriticalExtension",
	ConfidentialityRequired: "confidentialityRequired", SaslBindInProgress: "saslBindInProgress", NoSuchAttribute: "noSuchAttribute",
	UndefinedAttributeType: "undefinedAttributeType", InappropriateMatching: "inappropriateMatching",
	ConstraintViolation: "constraintViolation", AttributeOrValueExists: "attributeOrValueExists",
	InvalidAttributeSyntax: "invalidAttributeSyntax", NoSuchObject: "noSuchObject", AliasProblem: "aliasProblem",
	InvalidDNSyntax: "invalidDNSyntax", AliasDereferencingProblem: "aliasDereferencingProblem",
	InappropriateAuthentication: "inappropriateAuthentication", InvalidCredentials: "invalidCredentials",
	InsufficientAccessRights: "insufficientAccessRights", Busy: "busy", Unavailable: "unavailable",
	UnwillingToPerform: "unwillingToPerform", LoopDetect: "loopDetect", NamingViolation: "namingViolation",
	ObjectClassViolation: "objectClassViolation", NotAllowedOnNonLeaf: "notAllowedOnNonLeaf", NotAllowedOnRDN: "notAllowedOnRDN",
	EntryAlreadyExists: "entryAlreadyExists", ObjectClassModsProhibited: "objectClassModsProhibited",
	AffectsMultipleDSAs: "affectsMultipleDSAs", Other: "other", Canceled: "canceled", NoSuchOperation: "noSuchOperation",
	TooLate: "tooLate", CannotCancel: "cannotCancel", AssertionFailed: "assertionFailed",
	AuthorizationDenied: "authorizationDenied", ESyncRefreshRequired: "e-syncRefreshRequired",
}

// String gives the name that the RFCs have for it.
func (c ResultCode) String() string {
	if n, ok := resultNames[c]; ok {
		return n
	}
	return "result code " + strconv.FormatInt(int64(c), 10)
}
