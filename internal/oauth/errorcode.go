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
