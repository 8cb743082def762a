package awssecretsmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// statement is one of an IAM policy's.
type statement struct {
	Sid       string
	Effect    string
	Action    []string
	Resource  any                          // a string, or several
	Condition map[string]map[string]string `json:",omitempty"`
}

// Policy implements [secret.PolicyWriter]: an identity-based IAM policy as JSON. Where
// the account is not known it reads "*". Below each prefix of references it allows to read; the KMS keys
// of what lies there are not known, and not in it.
func (b *AWSBackend) Policy(_ context.Context, need secret.Access) (string, error) {
	actions := []string{"secretsmanager:GetSecretValue"}
	if need == secret.ReadWrite {
		actions = append(actions,
			"secretsmanager:DescribeSecret",
			"secretsmanager:CreateSecret",
			"secretsmanager:PutSecretValue",
			"secretsmanager:UpdateSecretVersionStage",
			"secretsmanager:TagResource",
			"secretsmanager:UntagResource",
			"secretsmanager:DeleteSecret",
			"secretsmanager:RestoreSecret",
		)
	}
	partition := b.partition()
	statements := []statement{
		{
			Sid: "NexusBrokerCredentials", Effect: "Allow", Action: actions,
			Resource: fmt.Sprintf("arn:%s:secretsmanager:%s:*:secret:%s/*", partition, b.region, b.prefix),
		},
		{
			// AWS checks GetSecretValue for each secret of a batch.
			Sid: "NexusBrokerBothInOneRequest", Effect: "Allow", Action: []string{"secretsmanager:BatchGetSecretValue"}, Resource: "*",
		},
	}
	places, err := secret.ReferencePlaces(b, b.references)
	if err != nil {
		return "", fmt.Errorf("%s: policy: a prefix of references: %w", Name, err)
	}
	if len(places) > 0 {
		statements = append(statements, b.referenceStatement(partition, places))
	}
	if b.kmsKey != "" {
		statements = append(statements, b.keyStatement(partition, need))
	}
	text, err := json.MarshalIndent(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", statements}, "", "  ")
	return string(text) + "\n", err
}

// referenceStatement allows to read what references may name: a place is a secret itself,
// whose ARN ends in six characters that AWS has chosen, or lies above others.
// (https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_iam-policies.html)
func (b *AWSBackend) referenceStatement(partition string, places [][]string) statement {
	var resources []string
	for _, place := range places {
		if strings.HasPrefix(place[0], "arn:") {
			arn := place[0] + ":" + strings.Join(place[1:], "/")
			resources = append(resources, arn, arn+"-??????", arn+"/*")
			continue
		}
		arn := fmt.Sprintf("arn:%s:secretsmanager:%s:*:secret:%s", partition, b.region, strings.Join(place, "/"))
		resources = append(resources, arn+"-??????", arn+"/*")
	}
	return statement{Sid: "NexusBrokerReferences", Effect: "Allow", Action: []string{"secretsmanager:GetSecretValue"}, Resource: resources}
}

// keyStatement allows the use of the KMS key, through Secrets Manager only.
func (b *AWSBackend) keyStatement(partition string, need secret.Access) statement {
	st := statement{
		Sid: "NexusBrokerKey", Effect: "Allow", Action: []string{"kms:Decrypt"},
		Condition: map[string]map[string]string{
			"StringEquals": {"kms:ViaService": "secretsmanager." + b.region + "." + domain(partition)},
		},
	}
	if need == secret.ReadWrite {
		st.Action = append(st.Action, "kms:GenerateDataKey")
	}
	keys := fmt.Sprintf("arn:%s:kms:%s:*:key/", partition, b.region)
	key := b.kmsKey
	if i := strings.LastIndex(key, ":alias/"); i >= 0 {
		key = key[i+1:]
	}
	switch {
	case strings.HasPrefix(key, "alias/"):
		// A policy cannot name a key by its alias as a resource.
		st.Resource = keys + "*"
		st.Condition["ForAnyValue:StringEquals"] = map[string]string{"kms:ResourceAliases": key}
	case strings.HasPrefix(key, "arn:"):
		st.Resource = key
	default:
		st.Resource = keys + key
	}
	return st
}

// partition returns the partition of the region
// (https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html).
func (b *AWSBackend) partition() string {
	for _, p := range []struct{ region, partition string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"us-isob-", "aws-iso-b"}, {"us-isof-", "aws-iso-f"}, {"us-iso-", "aws-iso"},
		{"eu-isoe-", "aws-iso-e"}, {"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(b.region, p.region) {
			return p.partition
		}
	}
	return "aws"
}

// domain returns what the names of a partition's services end in.
func domain(partition string) string {
	switch partition {
	case "aws-cn":
		return "amazonaws.com.cn"
	case "aws-iso":
		return "c2s.ic.gov"
	case "aws-iso-b":
		return "sc2s.sgov.gov"
	case "aws-iso-e":
		return "cloud.adc-e.uk"
	case "aws-iso-f":
		return "csp.hci.ic.gov"
	case "aws-eusc":
		return "amazonaws.eu"
	}
	return "amazonaws.com"
}
