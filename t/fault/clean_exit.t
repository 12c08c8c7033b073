# Stopping nginx costs nobody anything: what a host holds goes back to PostgreSQL before its shared memory ends, what was spent is
# reported, and only the last worker does it (a reload keeps both). U2 of the invariants; stop, quit and reload.
use v5.36;
use Billing::Test;

my @demo = (Authorization => 'Bearer demo-token');
my $cap = 4000;
my $world = world(locations => 'location /api/ { billing on; billing_account $user; billing_quota requests; proxy_pass http://app; }');
my $host = $world->host;
my $served = 0;

sub spend($count) { $served += grep { $_->status == 200 } $host->get_many($count, 8, '/api/x', @demo) }
sub row() { ($world->sql('SELECT issued, used FROM billing.quota_periods'))[0] }

spend(1);
$world->must('account', 'set', 'demo', '--limit', "requests=$cap");
wait_for(sub {
    my $answer = $host->get('/api/x', @demo);
    $served++ if $answer->status == 200;
    return ($answer->header('RateLimit-Policy') // '') =~ /q=$cap/;
}, 5, 'the cap');

for my $signal (qw(QUIT TERM QUIT TERM)) {
    spend(100);
    wait_for(sub { row()->{issued} > $served }, 5, 'the host holds tokens');
    my $status = $host->{process}->stop($signal, 20);
    is $status, 0, "$signal: exits with code 0";
    is_deeply row(), {issued => $served, used => $served}, "$signal: all that was not spent is back, all that was is reported";
    $host->start;
}

spend(100);
wait_for(sub { row()->{issued} > $served }, 5, 'the host holds tokens');
$host->reload;
cmp_ok row()->{issued}, '>', $served, 'a reload keeps what is held';

my $before = $served;
spend($cap - $served + 50);
is $served, $cap, 'after all of that every unit of the cap is served, and no more';
done_testing;
