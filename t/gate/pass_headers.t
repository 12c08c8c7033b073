# The promise: the application is told who a request is for and what that account may, in fields that only the gate can set: once, with
# what the last location decided, through every module that proxies; and a plan's attributes are there as variables. G26.
use v5.36;
use Billing::Test;

my $catalog = Billing::Test->sample_catalog;
$catalog->{plans}{free}{attributes} = {priority => 10, model => 'small one', beta => JSON::PP::false, max_tokens => 4096};
$catalog->{plans}{pro}{attributes} = {priority => -1, model => 'large', beta => JSON::PP::true};
my $world = world(catalog => $catalog, server => 'listen 127.0.0.1:%%PORT_h2%% http2;', locations => <<'END');
    billing on;
    billing_account $user;
    billing_pass_headers on;
    add_header X-Attributes "$billing_attr_priority|$billing_attr_model|$billing_attr_beta|$billing_attr_max_tokens|$billing_attr_nothing" always;
    location /pass/ { billing_quota requests; proxy_pass http://app; }
    location /off/ { billing_pass_headers off; proxy_pass http://app; }
    location /free/ { billing off; proxy_pass http://app; }
    location /unmetered/ { proxy_pass http://app; }
    location /hop/ { billing_quota requests; try_files /nowhere @same; }
    location @same { billing_quota requests; proxy_pass http://app; }
    location /hop-off/ { try_files /nowhere @off; }
    location @off { billing_pass_headers off; proxy_pass http://app; }
    location /hop-free/ { try_files /nowhere @free; }
    location @free { billing off; proxy_pass http://app; }
    location /hop-on/ { billing_pass_headers off; try_files /nowhere @same; }
    location /other/ { billing_quota requests; error_page 418 = @other; proxy_intercept_errors on; proxy_pass http://app; }
    location @other { billing_account $http_x_other; billing_unknown_account create; rewrite ^ /ok break; proxy_pass http://app; }
    location /refused/ { billing_feature white_label; error_page 403 = @sorry; proxy_pass http://app; }
    location @sorry { rewrite ^ /sorry break; proxy_pass http://app; }
    location /observed/ { billing observe; billing_feature white_label; proxy_pass http://app; }
    location /hand/ { billing_pass_headers off; proxy_set_header X-Billing-Max-Tokens $billing_attr_max_tokens; proxy_pass http://app; }
    location /forged/ { billing_pass_headers off; proxy_pass http://app; }
    location /page/ { billing_pass_headers off; ssi on; ssi_types *; root %%PREFIX%%; }
    location /scgi/ { scgi_pass 127.0.0.1:%%PORT_backend%%; scgi_param A b; }
    location /fastcgi/ { fastcgi_pass 127.0.0.1:%%PORT_backend%%; }
    location /uwsgi/ { uwsgi_pass 127.0.0.1:%%PORT_backend%%; uwsgi_param A b; }
END
my $host = $world->host;
sub as($account) { (Authorization => "Bearer test:$account") }
sub passed($path, $account, %more) {
    my $headers = $host->get($path, $account ? as($account) : (), %more)->json->{headers};
    return {map { /^x-billing-(.*)/ ? ($1 => $headers->{$_}) : () } keys %$headers};
}
my $features = join ',', sort $catalog->{plans}{free}{features}->@*;
my %free = (plan => 'free', status => 'active', features => $features, priority => 10);

is_deeply passed('/pass/x', 'a'), {%free, account => 'a', remaining => 19}, 'G26: the fields';
is_deeply passed('/unmetered/x', 'a'), {%free, account => 'a'}, 'none for what there is nothing to say of';
is_deeply passed('/off/x', 'a'), {}, 'none where it is off';
is_deeply passed('/free/x', 'a'), {}, 'nor where nothing is decided';
is_deeply passed('/pass/x', 'a', 'X-Billing-Plan' => 'agency', 'X-Billing-Priority' => '1'), {%free, account => 'a', remaining => 18},
    'A3: what a client says beside them does not arrive';
is_deeply passed('/pass/x', 'many', map { ("X-Field-$_" => $_) } 1 .. $_), {%free, account => 'many', remaining => 31 - $_}, "behind $_ fields" for 12 .. 22;
my @lines = map { "-H 'X-Field-$_: $_'" } 1 .. 30;
my $address = $host->address('h2');
my $second = JSON::PP->new->decode(scalar qx(curl -sS --http2-prior-knowledge @lines -H 'authorization: Bearer test:second' http://$address/pass/x))->{headers};
is "$second->{'x-billing-plan'} $second->{'x-field-30'}", 'free 30', 'HTTP/2';

subtest 'G26: where a request is led' => sub {
    is_deeply passed('/hop/x', 'hop'), {%free, account => 'hop', remaining => 19}, 'to the same rules: once';
    is_deeply passed('/hop-off/x', 'hop'), {}, 'to where it is off';
    is_deeply passed('/hop-on/x', 'hop'), {%free, account => 'hop', remaining => 18}, 'to where it is on';
    is_deeply passed('/hop-free/x', 'hop'), {%free, account => 'hop'}, 'to where nothing is decided: what was';
    is_deeply passed('/other/status/418', 'first', 'X-Other' => 'other'), {%free, account => 'other'}, 'to another account';
    is_deeply passed('/refused/x', 'hop'), {}, 'the page of a refusal is told nothing';
    is_deeply passed('/observed/x', 'hop'), {%free, account => 'hop'}, 'a refusal that is only observed passes';
};

subtest 'G26: subrequests have their own' => sub {
    mkdir $host->directory . '/page';
    Billing::Nginx::write_file($host->directory . '/page/all', '[<!--#include virtual="/pass/1" -->,<!--#include virtual="/off/2" -->,<!--#include virtual="/pass/3" -->,<!--#include virtual="/free/4" -->]');
    for my $fields (0, 13, 14, 15, 16, 30) {
        my $parts = $host->get('/page/all', as('ssi'), map { ("X-Field-$_" => $_) } 1 .. $fields)->json;
        is_deeply [map { my $headers = $_->{headers}; join ' ', map { $headers->{$_} // '-' } 'x-billing-account', 'x-billing-plan', $fields ? "x-field-$fields" : () } @$parts],
            [map { join ' ', $_ == 2 ? '- -' : 'ssi free', $fields || () } 1 .. 4], "each its own, $fields fields";
    }
};

subtest 'G26: through other modules' => sub {
    my $backend = IO::Socket::INET->new(LocalAddr => $host->address('backend'), Listen => 5, ReuseAddr => 1) // die "listen: $!\n";
    for my $kind (qw(scgi fastcgi uwsgi)) {
        my $client = $host->connect;
        print $client join "\r\n", "GET /$kind/x HTTP/1.1", 'Host: here', "Authorization: Bearer test:$kind", 'X_Billing_Plan: agency', '', '';
        my $served = $backend->accept;
        sysread $served, my $asked, 65536;
        like $asked, qr/HTTP_X_BILLING_ACCOUNT.{0,3}\Q$kind\E.*HTTP_X_BILLING_PLAN.{0,3}free/s, "$kind has them";
        unlike $asked, qr/agency/, 'and none from the client';
        close $_ for $served, $client;
    }
};

subtest 'G26: attributes' => sub {
    is $host->get('/pass/x', as('attr'))->header('X-Attributes'), '10|small one|0|4096|', 'of the plan';
    is $host->get('/free/x', as('attr'))->header('X-Attributes'), '||||', 'none where nobody is known';
    is_deeply passed('/hand/x', 'attr', 'X-Billing-Max-Tokens' => '9'), {'max-tokens' => 4096}, 'in a field set by hand';
    is_deeply passed('/forged/x', 'attr', 'X-Billing-Max-Tokens' => '9', 'X-Billing-Model' => 'huge', 'x-billing-max_tokens' => '9'), {},
        'A3: whose name no client can use';
    $world->must('account', 'set', 'attr', '--plan', 'pro');
    wait_for(sub { $host->get('/pass/x', as('attr'))->header('X-Attributes') eq '-1|large|1||' }, 5, 'the other plan has others');
    is passed('/pass/x', 'attr')->{priority}, -1, 'and so has the field';
    $world->sql(q{INSERT INTO billing.account_features (account_id, feature_no, enabled)
        SELECT a.id, f.feature_no, f.feature_key = 'white_label' FROM billing.accounts a, billing.features f
        WHERE a.external_id = 'attr' AND f.feature_key IN ('white_label', 'chatbot')});
    my $pro = join ',', sort 'white_label', grep { $_ ne 'chatbot' } $catalog->{plans}{pro}{features}->@*;
    is eval { wait_for(sub { passed('/pass/x', 'attr')->{features} eq $pro }, 5, 'exceptions') }, 1, "an account's own features count";
    $catalog->{plans}{pro}{attributes} = {model => 'larger'};
    $world->apply_catalog($catalog);
    wait_for(sub { $host->get('/pass/x', as('attr'))->header('X-Attributes') eq '|larger|||' }, 5, 'a catalog that is applied decides at once');
    my ($row) = $world->sql(q{SELECT attributes::text AS text FROM billing.plans WHERE plan_key = 'pro'});
    is $row->{text}, '{"model": "larger"}', 'PostgreSQL has them';
};

subtest 'G26: what an attribute can be' => sub {
    my $long = 'x' x 256;
    for my $case (
        [{Priority => 1}, 'an attribute\'s name has 1-48 of a-z 0-9 _'], [{'a-b' => 1}, 'an attribute\'s name'], [{'a' x 49, 1}, 'an attribute\'s name'],
        [{a => 1.5}, 'must be a text'], [{a => undef}, 'must be a text'], [{a => [1]}, 'must be a text'], [{a => ''}, 'must be a text'],
        [{a => $long}, 'must be a text'], [{a => "b\r\nX-Admin: 1"}, 'must be a text of 1-255 printable ASCII'], [{a => "\x{e9}"}, 'must be a text'],
        [{map { ("a$_" => 1) } 1 .. 33}, 'more than 32 attributes'], [[1], 'must be an object'],
    ) {
        my ($attributes, $message) = @$case;
        my $wrong = Billing::Test->sample_catalog;
        $wrong->{plans}{pro}{attributes} = $attributes;
        my $file = $world->catalog_file($wrong);
        my $told = Billing::Test::run_command('catalog', 'validate', $file);
        my $name = JSON::PP->new->canonical->ascii->encode($attributes) =~ s/^(.{30}).*/$1.../r;
        like $told->{err} . $told->{out}, qr/plans\.pro\.attributes.*\Q$message\E/, "refused: $name";
        isnt $told->{code}, 0, 'with an exit code';
        my $refused = eval { $world->sql('SELECT billing.catalog_apply(?::jsonb)', JSON::PP->new->ascii->canonical->encode($wrong)); 1 } ? '' : $@;
        like $refused, qr/plans\.pro\.attributes must be an object of at most 32/, 'and by PostgreSQL';
    }
};
done_testing;
