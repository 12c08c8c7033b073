# Wherever a request is led, each account pays for itself, once, and no way leads around the gate: redirects to a location that asks
# for another account, subrequests of a page that is free, what an error page leads to, chains of redirects. G18, G22, A20; U3, I1.
use v5.36;
use Billing::Journey qw(answer_of);
use Billing::Test;

my $catalog = Billing::Test->sample_catalog;
my @chain = map { "q$_" } 1 .. 20;
$catalog->{quotas} = {map { $_ => {period => 'month'} } 'requests', @chain};
$catalog->{plans}{free}{quotas} = {requests => 20, map { $_ => 10 } @chain};
$_->{quotas} = {requests => 1000} for map { $catalog->{plans}{$_} } qw(starter pro agency);
my $levels = join "\n", map {
    my ($from, $to) = ($_ * 4 + 1, $_ * 4 + 4);
    my $next = $_ < 4 ? "try_files /nowhere \@level" . ($_ + 1) . ';' : 'proxy_pass http://app;';
    "location \@level$_ { " . join('', map { "billing_quota q$_; " } $from .. $to) . "$next }";
} 1 .. 4;
my $world = world(catalog => $catalog, locations => <<"END");
    billing on;
    billing_account \$user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /other/ { billing_quota requests; error_page 418 = \@other; proxy_intercept_errors on; proxy_pass http://app; }
    location \@other { billing_account \$http_x_other; billing_unknown_account create; billing_quota requests cost=3; rewrite ^ /\$arg_to break; proxy_pass http://app; }
    location /same/ { billing_quota requests; try_files /nowhere \@same; }
    location \@same { billing_account \$http_x_other; billing_unknown_account create; proxy_pass http://app; }
    location /observed/ { billing observe; try_files /nowhere \@plain; }
    location /search/ { billing_read_methods GET POST; try_files /nowhere \@plain; }
    location /loose/ { billing_live_status active unpaid; try_files /nowhere \@plain; }
    location /unwritten/ { billing_unknown_account free; try_files /nowhere \@deny; }
    location \@deny { billing_unknown_account deny; proxy_pass http://app; }
    location \@plain { proxy_pass http://app; }
    location /plain/ { proxy_pass http://app; }
    location /page/ { billing off; ssi on; ssi_types *; root %%PREFIX%%; }
    location /sorry/ { billing_feature white_label; error_page 403 = \@sorry; proxy_pass http://app; }
    location \@sorry { proxy_pass http://127.0.0.1:%%PORT_accel%%; }
    location /premium/ { billing_feature white_label; proxy_pass http://app; }
    location /long/ { billing_quota q1; billing_quota q2; billing_quota q3; billing_quota q4; try_files /nowhere \@level1; }
    $levels
END
my $host = $world->host;
mkdir $host->directory . '/page';
Billing::Nginx::write_file($host->directory . '/page/all', '<!--#include virtual="/api/include" --><!--#include virtual="/api/include?two" -->');

sub used($account, $limit = 'requests') {
    return ($world->sql(q{SELECT coalesce(sum(q.used), 0)::int AS used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        JOIN billing.limits l USING (limit_no) WHERE a.external_id = ? AND l.limit_key = ?}, $account, $limit))[0]{used};
}
sub reported($account, $used, $what) {
    my $reported = eval { wait_for(sub { used($account) == $used }, 5, $what) };
    ok $reported, $what or diag 'used: ' . used($account);
    return;
}
sub rows() { $world->sql('SELECT 1 FROM billing.quota_periods WHERE used > issued') }

subtest 'a redirect to a location that asks for another account' => sub {
    my @headers = (Authorization => 'Bearer test:first', 'X-Other' => 'second');
    is $host->get('/other/status/418?to=ok', @headers)->status, 200, 'passes';
    reported('first', 1, 'the first account pays for its own location');
    reported('second', 3, 'the second for its own');
    is $host->get('/other/status/418?to=status/500', @headers)->status, 500, 'and when it fails';
    is $host->get('/api/x', Authorization => 'Bearer test:first')->status, 200, 'a marker';
    is $host->get('/other/status/418?to=ok', Authorization => 'Bearer test:third', 'X-Other' => 'second')->status, 200, 'and another';
    reported('first', 2, 'the first gets its own unit back');
    reported('second', 6, 'and the second its three');
    my @many = map { $host->get('/other/status/418?to=status/500', @headers)->status } 1 .. 30;
    is_deeply [grep { $_ != 500 } @many], [], 'thirty failures take nothing';
    my @served = grep { $_ == 200 } map { $host->get('/api/x', Authorization => 'Bearer test:second')->status } 1 .. 40;
    is @served, 14, 'the second account is served exactly what it had left';
    is rows(), 0, 'and nobody used more than was issued';
    is $host->get('/same/x', Authorization => 'Bearer test:first', 'X-Other' => 'a b')->status, 400, 'the same rules for another account are asked anew';
};

subtest 'a redirect to where the same rules are asked more strictly' => sub {
    my $ask = sub ($method, $path, $account) { $host->request($method, $path, headers => $account ? {Authorization => "Bearer test:$account"} : {}) };
    $ask->('GET', '/plain/x', $_) for qw(off unpaid);
    $world->must('account', 'set', 'off', '--writes', 'off');
    $world->must('account', 'set', 'unpaid', '--plan', 'pro', '--status', 'unpaid');
    wait_for(sub { $ask->('POST', '/plain/x', 'off')->status == 403 && $ask->('GET', '/plain/x', 'unpaid')->status == 402 }, 5, 'both are known');
    is answer_of($ask->(@$_[0 .. 2])), $_->[3], $_->[4] for
        ['POST', '/observed/x', 'off', '403 WRITE_DISABLED', 'what was refused under observe is refused where the gate is on'],
        ['GET', '/observed/x', '', '401 ACCOUNT_REQUIRED', 'nobody is nobody there'],
        ['GET', '/observed/x', 'off', '200', 'what was let through passes'],
        ['POST', '/search/x', 'off', '403 WRITE_DISABLED', 'a method that reads in one location writes in the other'],
        ['GET', '/loose/x', 'unpaid', '402 SUBSCRIPTION_INACTIVE', 'a state that does in one does not in the other'],
        ['GET', '/unwritten/x', 'nobody', '403 UNKNOWN_ACCOUNT', 'an account that is unknown in one is unknown in the other'];
};

subtest 'a free page that includes a metered location' => sub {
    my @bearer = (Authorization => 'Bearer test:reader');
    my @served = grep { $_ == 200 } map { $host->get('/api/x', @bearer)->status } 1 .. 25;
    is @served, 20, 'the limit';
    like $host->get('/page/all', Authorization => 'Bearer test:fresh')->body, qr/GET.*GET/s, 'who has units left sees all of the page';
    reported('fresh', 1, 'and pays once for what it includes twice');
    is $world->app->count('/api/include'), 2, 'the application was asked';
    $host->get('/page/all', @bearer) for 1 .. 3;
    is $world->app->count('/api/include'), 2, 'for who has none, what is included is refused as well';
    is rows(), 0, 'nobody used more than was issued';
};

subtest 'what an error page leads to' => sub {
    my $server = Mojo_accel->start($host->port('accel'));
    my $answer = $host->get('/sorry/x', Authorization => 'Bearer test:poor');
    isnt $answer->status, 200, 'X-Accel-Redirect of an error page does not open what was refused';
    is $world->app->count('/premium/x'), 0, 'the application was not asked';
};

subtest 'a chain of redirects' => sub {
    my @statuses = map { $host->get('/long/x', Authorization => 'Bearer test:chain')->status } 1 .. 2;
    is_deeply \@statuses, [503, 503], 'that asks for more quotas than a request can pay is refused, never free';
    is used('chain', 'q20'), 0, 'and takes nothing';
};
done_testing;

# An application that answers each request with a redirect inside nginx.
package Mojo_accel;
use Billing::Process ();
sub start($class, $port) {
    my $process = Billing::Process->start(name => 'accel', log => Billing::Process::new_directory() . '/log', command => [$^X, '-MMojolicious::Lite', '-e',
        'any "/*rest" => {rest => ""} => sub { $_[0]->res->headers->header("X-Accel-Redirect" => "/premium/x"); $_[0]->render(text => "") }; app->start("daemon", "-l", shift)',
        "http://127.0.0.1:$port"]);
    Billing::Process::wait_for(sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }, 10, 'it listens');
    return $process;
}
