# nginx starts whatever the state of what stands behind it. Each trouble is one error line in each process that meets it, says what
# to do, and is over as soon as the operator has done it, without a reload. G21; "When something behind is missing" of the semantics.
use v5.36;
use Billing::Database;
use Billing::Test;

my @demo = (Authorization => 'Bearer demo-token');
my $world = world(start => 0, workers => 1, locations => <<'END');
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /lenient/ { billing_on_error allow; proxy_pass http://app; }
    location /open/ { billing off; proxy_pass http://app; }
END
my $database = Billing::Database->new;
$database->stop;
my $host = $world->host;
$host->write_config($host->{conf}, DSN => $database->dsn);
$host->start;

sub errors($pattern) { scalar grep { /\[error\]/ } $host->log_lines($pattern) }
sub command(@arguments) {
    my $result = Billing::Test::run_command(@arguments, '--dsn', $database->dsn);
    return $result->{code} if !wantarray;
    return ($result->{code}, $result->{err});
}

subtest 'PostgreSQL is away' => sub {
    is $host->get('/api/x', @demo)->status, 503, 'a gated request is answered';
    is $host->get('/api/x', @demo)->header('Retry-After'), 1, 'with when to come again';
    is $host->get('/lenient/x', @demo)->status, 200, 'or let through where so configured';
    is $host->get('/open/x')->status, 200, 'a free path works';
    $host->wait_log(qr/\[error\].*billing: cannot reach PostgreSQL: .*next try in/);
    $host->get('/api/x', @demo) for 1 .. 20;
    is errors(qr/cannot reach PostgreSQL:/), 1, 'one error line, not one for each request';
    my ($code, $said) = command('account', 'show', 'demo');
    is $code, 3, 'the command exits with 3';
    like $said, qr/PostgreSQL/, 'and says why';
};

subtest 'the schema is missing' => sub {
    $database->start;
    $host->wait_log(qr/\[error\].*billing: PostgreSQL .*; has ngx-billing migrate been run\?/);
    is $host->get('/api/x', @demo)->status, 503, 'a gated request is answered';
    $host->get('/api/x', @demo) for 1 .. 20;
    cmp_ok errors(qr/has ngx-billing migrate been run/), '<=', 3, 'one error line for each thing that cannot be done';
    my ($code, $said) = command('account', 'show', 'demo');
    is $code, 1, 'the command exits with 1';
    like $said, qr/run: ngx-billing migrate/, 'and says what to do';
};

subtest 'the catalog is missing' => sub {
    is command('migrate'), 0, 'migrate';
    $host->wait_log(qr/\[error\].*billing: catalog document .*; run ngx-billing catalog apply FILE/);
    is $host->get('/api/x', @demo)->status, 503, 'a gated request is answered';
    $host->get('/api/x', @demo) for 1 .. 20;
    is errors(qr/run ngx-billing catalog apply FILE/), 1, 'one error line';
};

subtest 'another catalog than the file' => sub {
    my $catalog = $world->sample_catalog;
    $catalog->{quotas} = {calls => {period => 'month'}};
    $_->{quotas} = {calls => 5} for values $catalog->{plans}->%*;
    is command('catalog', 'apply', $world->catalog_file($catalog)), 0, 'applied';
    wait_for(sub { $host->get('/lenient/x', @demo)->status == 200 && $world->app->count('/lenient/x') > 1 }, 5, 'it is known');
    $host->wait_log(qr/\[error\].*the catalog in PostgreSQL has no quota "requests", which the configuration names; run ngx-billing catalog apply/);
    is $host->get('/api/x', @demo)->status, 503, 'what it cannot count is not let through';
};

subtest 'all is there' => sub {
    is command('catalog', 'apply', $world->catalog_file($world->sample_catalog)), 0, 'applied';
    wait_for(sub { $host->get('/api/x', @demo)->status == 200 }, 10, 'requests pass');
    pass 'requests pass, without a reload';
};
done_testing;
