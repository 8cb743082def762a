package oauth

// RegisteredErrorCode returns code if it is one that a standard defines for an
// authorization or token endpoint, else "". Such a code says something to the
// caller of the broker; anything else that a provider sends is foreign text.
func RegisteredErrorCode(code string) string {
	switch code {
	case
		// RFC 6749 §4.1.2.1 and §5.2
		"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type",
		"invalid_scope", "server_error", "temporarily_unavailable",
		"invalid_client", "invalid_grant", "unsupported_grant_type",
		// RFC 6750 §3.1
		"invalid_token", "insufficient_scope",
		// RFC 7009 §2.2.1
		"unsupported_token_type",
		// OpenID Connect Core 1.0 §3.1.2.6
		"interaction_required", "login_required", "account_selection_required", "consent_required",
		"invalid_request_uri", "invalid_request_object", "request_not_supported",
		"request_uri_not_supported", "registration_not_supported",
		// OpenID Connect Core Error Code unmet_authentication_requirements 1.0
		"unmet_authentication_requirements",
		// RFC 8628 §3.5
		"authorization_pending", "slow_down", "expired_token",
		// RFC 8707 §2
		"invalid_target",
		// RFC 9396 §5
		"invalid_authorization_details",
		// RFC 9449 §5, §8
		"invalid_dpop_proof", "use_dpop_nonce",
		// RFC 9470 §3
		"insufficient_user_authentication":
		return code
	}
	return ""
}

// tokenErrorCode returns the registered code that a token endpoint's error stands
// for, "" if there is none. The two codes on which the broker acts have names of
// their own at some providers, which would else make a rotated secret look like an
// outage and a dead refresh token like a passing trouble.
func tokenErrorCode(code string) string {
	switch code {
	case
		"incorrect_client_credentials", // GitHub, "Troubleshooting OAuth app access token request errors"
		"bad_client_secret",            // Slack, method oauth.v2.access
		"invalid_client_id",            // Slack; Salesforce, "OAuth 2.0 Authorization Errors"
		"invalid_client_credentials":   // Salesforce
		return "invalid_client"
	case
		"bad_verification_code", "bad_refresh_token", // GitHub
		"invalid_code", "invalid_refresh_token": // Slack
		return "invalid_grant"
	}
	return RegisteredErrorCode(code)
}
