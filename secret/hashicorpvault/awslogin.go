package hashicorpvault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/nexus-broker/nexus-broker/secret"
)

// AWSLogin logs in as an IAM principal: Vault gets a signed request for
// sts:GetCallerIdentity, sends it to AWS, and learns who has signed it
// (https://developer.hashicorp.com/vault/docs/auth/aws#iam-auth-method). The credentials
// and the region come from the default chain of the AWS SDK, and so does another endpoint
// of STS. Vault has to know the same endpoint, because its name is signed too; without a
// region it is the one that Vault has by default.
type AWSLogin struct {
	Mount string // of the auth method; "" is "aws"
	Role  string // "" is the name of the IAM principal
}

func (l AWSLogin) problems(Config) []error { return checkMount("AWS", l.Mount) }

func (l AWSLogin) method(c *conn) method {
	return &login{
		proof: &awsProof{role: l.Role},
		conn:  c, name: "aws", what: "AWS", path: loginPath(l.Mount, "aws"),
		advice: "check the role and the IAM principals bound to it, the region and the STS endpoint (of the broker and of the auth mount), the clock, " +
			"the auth mount and the login namespace",
		// Vault cannot reach STS, or what it reaches is in trouble or is not STS.
		outages: []string{
			"error making request", "body of GetCallerIdentity is invalid", "error parsing STS response", "received error code 5",
			"received error code 429", "<Code>Throttling", "RequestLimitExceeded",
		},
	}
}

// What Vault's default endpoint of STS is, and the region that it belongs to.
const (
	globalSTS       = "https://sts.amazonaws.com"
	globalSTSRegion = "us-east-1"
)

// callerIdentity is the body of the request that is signed.
const callerIdentity = "Action=GetCallerIdentity&Version=2011-06-15"

// awsProof presents a signed request. It is signed anew for each login: a signature is
// good for a few minutes.
type awsProof struct {
	role string

	mu     sync.Mutex
	loaded *aws.Config
}

// changed is false: the SDK looks after its files itself.
func (p *awsProof) changed() bool { return false }

func (p *awsProof) present(ctx context.Context) (map[string]string, error) {
	cfg, err := p.config(ctx)
	if err != nil {
		return nil, err
	}
	req, err := signed(ctx, cfg)
	if err != nil {
		return nil, awsTrouble(ctx, err)
	}
	headers, err := json.Marshal(req.Header)
	if err != nil {
		return nil, err // strings can be marshalled
	}
	encode := base64.StdEncoding.EncodeToString
	return withRole(p.role, map[string]string{
		"iam_http_request_method": req.Method,
		"iam_request_url":         encode([]byte(req.URL.String())),
		"iam_request_body":        encode([]byte(callerIdentity)),
		"iam_request_headers":     encode(headers),
	}), nil
}

// config returns the SDK's configuration. It is kept, for it caches the credentials
// until they expire. Its HTTP client is the SDK's own.
func (p *awsProof) config(ctx context.Context) (aws.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded != nil {
		return *p.loaded, nil
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return aws.Config{}, fmt.Errorf("%w: the AWS SDK cannot read its configuration: check AWS_PROFILE and the other AWS_* variables, and the files that they name",
			secret.ErrUnavailable)
	}
	p.loaded = &cfg
	return cfg, nil
}

// signed returns a request for sts:GetCallerIdentity, signed with as few headers as can
// be: what is signed has to reach STS unchanged.
func signed(ctx context.Context, cfg aws.Config) (*http.Request, error) {
	region := cfg.Region
	endpoint, err := stsEndpoint(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if region == "" {
		region = globalSTSRegion
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(callerIdentity))
	if err != nil {
		return nil, errors.New("the endpoint of STS is not a URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(callerIdentity))
	err = v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(sum[:]), "sts", region, time.Now())
	return req, err
}

// stsEndpoint returns the URL of STS, with the path "/".
func stsEndpoint(ctx context.Context, cfg aws.Config) (string, error) {
	known := cfg.Copy()
	if known.Region == "" {
		known.Region = globalSTSRegion
	}
	o := sts.NewFromConfig(known).Options() // reads AWS_ENDPOINT_URL_STS and its like
	base := o.BaseEndpoint
	if base == nil && cfg.Region == "" {
		base = aws.String(globalSTS)
	}
	at, err := o.EndpointResolverV2.ResolveEndpoint(ctx, sts.EndpointParameters{
		Region: aws.String(known.Region), Endpoint: base,
		UseFIPS:      aws.Bool(o.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack: aws.Bool(o.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
	})
	if err != nil {
		return "", err
	}
	u := at.URI
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}

// awsTrouble maps a failure to get AWS credentials. Only an answer of AWS that is about
// the credentials is a refusal: a metadata service that does not answer looks to the SDK
// like a machine that has none.
func awsTrouble(ctx context.Context, err error) error {
	if ended := ended(ctx); ended != nil {
		return ended
	}
	var answer smithy.APIError
	if errors.As(err, &answer) {
		switch code := answer.ErrorCode(); code {
		case "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "InvalidIdentityToken",
			"InvalidIdentityTokenException", "SignatureDoesNotMatch", "UnrecognizedClientException", "IDPRejectedClaim", "ForbiddenException", "UnauthorizedException":
			return refused("AWS gives no credentials (%s): check the IAM role, its trust policy, and the token or profile that the broker uses", code)
		}
	}
	return fmt.Errorf("%w: the AWS SDK finds no credentials: check the AWS_* variables, the profile, and that the metadata service answers", secret.ErrUnavailable)
}
