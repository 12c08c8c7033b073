# The promise: what the gate adds to a request does not grow unseen. P1: a warm allowed request executes at most 5 % more instructions
# than when this figure was written; so do the RateLimit fields and a refusal (P10). limit_req stands beside it, with more slack, for
# what a worker does each second counts into both, and more of it the slower the machine is. Counted by callgrind; another compiler or
# nginx may ask for new figures.
use v5.36;
use Billing::Bench;
use Billing::Process qw(sanitized);
use Test::More;

plan skip_all => 'counted on the module as it is shipped' if sanitized();

my %landed = (gate => 940, fields => 743, refusal => 4797);
my $slack = 1.05;

my $bench = Billing::Bench->new(accounts => 300, variants => [
    {name => 'bare', directives => ''},
    {name => 'limr', directives => 'limit_req zone=limits burst=100000 nodelay;'},
    {name => 'unlm', directives => Billing::Bench::gate('feature export', 'quota unlimited')},    # no RateLimit fields
    {name => 'gate', directives => Billing::Bench::gate('feature export', 'quota requests')},
    {name => 'r402', directives => 'return 402;', status => 402},
    {name => 'refu', directives => Billing::Bench::gate('feature support'), status => 403},
]);
my %count = $bench->instructions(300, 4);
$_ = int for values %count;
$bench->finish;

my $gate = $count{unlm} - $count{bare};
my $limit_req = $count{limr} - $count{bare};
my $fields = $count{gate} - $count{unlm};
my $refusal = $count{refu} - $count{r402};
note "instructions: bare $count{bare}, gate +$gate, limit_req +$limit_req, fields +$fields, refusal +$refusal over return 402";
cmp_ok $gate, '<=', $landed{gate} * $slack, "P1: a warm request that is let through (landed: $landed{gate})";
cmp_ok $gate, '<=', $limit_req * 1.2, 'P1: costs about as much as limit_req';
cmp_ok $fields, '<=', $landed{fields} * $slack, "P1: RateLimit fields (landed: $landed{fields})";
cmp_ok $refusal, '<=', $landed{refusal} * $slack, "P10: a refusal (landed: $landed{refusal})";

done_testing;
