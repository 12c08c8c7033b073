# The promise: what the gate adds to a request does not grow unseen. P1: a warm allowed request executes at most 5 % more instructions
# than when this figure was written, and no more than limit_req beside it; so do the RateLimit fields and a refusal (P10). Counted by callgrind;
# another compiler or nginx may ask for new figures.
use v5.36;
use Billing::Bench;
use Billing::Process qw(sanitized);
use Test::More;

plan skip_all => 'counted on the module as it is shipped' if sanitized();

my %landed = (gate => 861, fields => 765, refusal => 1428);
my $slack = 1.05;

my $bench = Billing::Bench->new(accounts => 200, variants => [
    {name => 'bare', directives => ''},
    {name => 'limr', directives => 'limit_req zone=limits burst=100000 nodelay;'},
    {name => 'unlm', directives => Billing::Bench::gate('feature export', 'quota unlimited')},    # no RateLimit fields
    {name => 'gate', directives => Billing::Bench::gate('feature export', 'quota requests')},
    {name => 'r402', directives => 'return 402;', status => 402},
    {name => 'refu', directives => Billing::Bench::gate('feature support'), status => 403},
]);
my ($all, $phases, $header) = $bench->instructions(200, 4);
$bench->finish;

my $gate = int($phases->{unlm} - $phases->{bare});
my $limit_req = int($phases->{limr} - $phases->{bare});
my $fields = int($phases->{gate} - $phases->{unlm} + $header->{gate} - $header->{unlm}); # sent when the phases are over
my $refusal = int($phases->{refu} - $phases->{r402});
note "instructions: gate +$gate, limit_req +$limit_req, fields +$fields, refusal +$refusal over return 402";
note sprintf 'in all: %s', join ', ', map { sprintf '%s %d', $_, $all->{$_} } sort keys %$all;
cmp_ok $gate, '<=', $landed{gate} * $slack, "P1: a warm request that is let through (landed: $landed{gate})";
cmp_ok $gate, '<=', $limit_req, 'P1: costs no more than limit_req';
cmp_ok $fields, '<=', $landed{fields} * $slack, "P1: RateLimit fields (landed: $landed{fields})";
cmp_ok $refusal, '<=', $landed{refusal} * $slack, "P10: a refusal (landed: $landed{refusal})";

done_testing;
