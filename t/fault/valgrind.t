# No worker reads or writes what it must not, and none forgets memory, under valgrind: the journey from the first request over the
# limit, a checkout, a paid subscription and changes by the command, with keys and metrics; a reload in the middle, requests that
# wait when a worker is told to go, clients that leave, and the end. W2.
# Beside the sanitized round it sees what ASan cannot: words never written, and the libraries that were not built for it.
use v5.36;
use Billing::Client qw(request);
use Billing::Process qw(sanitized);
use Billing::Test;

Test::More::plan(skip_all => 'valgrind and ASan cannot be joined') if sanitized();

my %demo = (Authorization => 'Bearer demo-token');
my @valgrind = (qw(valgrind -q --trace-children=yes --vgdb=no --error-exitcode=99 --keep-debuginfo=yes),
    qw(--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --num-callers=30),
    '--suppressions=' . Billing::Process::root() . '/t/fault/valgrind.supp', '--log-file=%%PREFIX%%/reports/report.%p');
my $world = world(wrapper => \@valgrind, stripe => 1, locations => <<'END');
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /export/ { billing_feature asset_download; proxy_pass http://app; }
    location /key/ { billing_account $billing_api_key_account; billing_api_key $http_x_api_key; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/portal { billing_portal; }
    location = /billing/webhook { billing_webhook; }
    location = /metrics { billing off; billing_metrics; }
END
my $host = $world->host;

sub walk($name) {
    my $who = "$name-1";
    my %who = (Authorization => "Bearer test:$who");
    is $host->get('/api/x')->status, 401, "$name: nobody";
    is $host->get('/api/x', Authorization => 'Bearer test:a b')->status, 400, "$name: no account";
    my @statuses = map { $host->get('/api/x', %who)->status } 1 .. 21;
    is_deeply \@statuses, [(200) x 20, 402], "$name: the limit";
    is $host->get('/api/x', %who, Accept => 'text/html')->status, 402, "$name: as a page";
    is $host->get('/export/x', %who)->status, 403, "$name: a feature";
    my $answer = $host->request('POST', '/billing/checkout', headers => {%who, 'Content-Type' => 'application/json'}, body => '{"plan":"starter"}');
    is $answer->status, 200, "$name: a checkout";
    my ($session) = grep { ($_->{client_reference_id} // '') eq $who } $world->stripe->all('checkout.session');
    $world->stripe->pay($session->{id});
    ok eval { wait_for(sub { $host->get('/export/x', %who)->status == 200 }, 20, 'paid') }, "$name: paid, and let through";
    is $host->request('POST', '/billing/portal', headers => {%who, 'Content-Type' => 'application/json'}, body => '{}')->status, 200, "$name: the portal";
    is $host->request('POST', '/billing/webhook', body => '{}')->status, 400, "$name: an event without a signature";
    my ($key) = $world->must('keys', 'create', $who) =~ /^(\S{20,})$/m;
    is $host->get('/key/x', 'X-API-Key' => $key // '')->status, 200, "$name: a key";
    is $host->get('/key/x', 'X-API-Key' => 'none')->status, 401, "$name: none";
    is $host->get('/metrics')->status, 200, "$name: metrics";
    $world->must('account', 'set', $who, '--plan', 'free', '--feature', 'asset_download=on', '--limit', 'requests=30');
    ok eval { wait_for(sub { ($host->get('/api/x', %who)->header('RateLimit-Policy') // '') =~ /q=30/ }, 10, 'changed') }, "$name: overrides";
    return;
}

walk('first');

# Clients that leave while their request waits, and others that still wait when their worker is told to go.
$world->db->pause;
my @waiting = map {
    my $socket = $host->connect;
    print $socket "GET /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer test:waits-$_\r\n\r\n";
    $socket;
} 1 .. 12;
close $_ for splice @waiting, 0, 6;
kill 'HUP', $host->master;
my @answers = map { local $/; <$_> // '' } @waiting;
is grep({ m{^HTTP/1\.1 503 } } @answers), 6, 'who waits through a reload is answered';
$world->db->resume;
$host->reload;
walk('second');
done_testing;
