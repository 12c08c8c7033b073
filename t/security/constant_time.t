# How long an answer takes tells nobody how much of a secret was right. A6. No clock can prove that on a busy machine, so it is argued from
# how it is built: what is computed from a secret (the signatures of events and of tokens) is compared by CRYPTO_memcmp over its whole
# length, every candidate of it; and an API key is never compared at all: it is found by its digest, which who guesses cannot steer
# towards another's, byte by byte.
use v5.36;
use Billing::Process qw(root slurp);
use Billing::Source qw(bare_text sources);
use Billing::Test;
use Digest::SHA qw(sha256_hex);

# The text of a function, without comments and literals.
sub function_of($file, $name) {
    my ($text) = bare_text(slurp(root() . "/$file")) =~ /^(\Q$name\E\([^;]*?\{\n.*?^\})/ms;
    return $text // die "$file has no function $name\n";
}

# What is wrong with how a function compares the variable $secret.
sub leaks($text, $secret) {
    my @wrong;
    push @wrong, 'no CRYPTO_memcmp' if $text !~ /\bCRYPTO_memcmp\(\Q$secret\E\b/;
    push @wrong, "$1" while $text =~ /(\b\Q$secret\E\s*[!=]=[^\n]*|[!=]=\s*\Q$secret\E\b(?!\.size\(\))|\bstd::(?:equal|ranges::equal|strcmp|memcmp)\b[^\n]*|(?<!CRYPTO_)\b(?:mem|str)n?cmp\b[^\n]*)/g;
    return @wrong;
}
is_deeply [leaks("bool f() {\n    return expected == given;\n}", 'expected')], ['no CRYPTO_memcmp', 'expected == given;'], 'a plain comparison is found';
is_deeply [leaks("bool f() {\n    return memcmp(expected, given, 32) == 0;\n}", 'expected')], ['no CRYPTO_memcmp', 'memcmp(expected, given, 32) == 0;'], 'so is memcmp';
is_deeply [leaks("bool f() {\n    return CRYPTO_memcmp(expected.data(), given, 32) == 0;\n}", 'expected')], [], 'and the right one';

my $events = function_of('src/stripe/signature.cpp', 'SignatureVerdict verify_signature');
is_deeply [leaks($events, 'expected')], [], "A6: an event's signature";
unlike $events =~ s/.*(?=for \(const std::string& secret)//sr, qr/\b(?:break|return)\b(?!\s+matches)/, 'A6: every secret and every signature is tried, whichever matches';
is_deeply [leaks(function_of('src/identity/token_key.cpp', 'bool verify_mac'), 'expected')], [], "A6: a token's";
is_deeply [grep { bare_text(slurp(root() . "/$_")) =~ /(?<!CRYPTO_)\bmemcmp\(/ } grep { m{^src/(?:identity|stripe|endpoints)/} } sources()], [],
    'A6: nothing there compares bytes otherwise';

# A key leaves the worker as a digest, and comes to no comparison before.
my $world = world(database => {settings => {log_statement => 'all', log_parameter_max_length => -1}}, locations => <<'END');
    billing on;
    billing_account $billing_api_key_account;
    billing_api_key $http_x_api_key;
    location / { proxy_pass http://app; }
END
$world->sql(q{SELECT billing.ensure_accounts('{demo}')});
my ($key) = split /\n/, $world->must('keys', 'create', 'demo');
(my $near = $key) =~ s/(.)$/$1 eq '0' ? '1' : '0'/e;
is $world->host->get('/x', 'X-API-Key' => $key)->status, 200, 'a key';
is $world->host->get('/x', 'X-API-Key' => $near)->status, 401, 'one that differs in its last letter';
my $log = wait_for(sub { my $text = $world->db->log; $text =~ /api_keys_find.*api_keys_find/s && $text }, 5, 'PostgreSQL was asked for both');
for my $asked ($key, $near) {
    my ($secret) = $asked =~ /_([0-9a-f]{64})$/;
    like $log, qr/@{[sha256_hex($asked)]}/, 'A6: PostgreSQL was asked for its digest';
    unlike $log, qr/\Q$secret\E/, 'A6: and not for the key';
}
done_testing;
