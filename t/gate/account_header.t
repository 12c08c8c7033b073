# Who pays is what nginx says: an account from a header is found without nginx's variable, and must be the same as the variable's value
# however the client writes the field, and wherever a configuration has given the variable another meaning.
use v5.36;
use Billing::Test;

my $world = world(
    http => 'map $arg_who $http_x_mapped { default mapped; }',
    server => 'underscores_in_headers on; add_header X-Nginx "$http_x_account" always; add_header X-Ours "$billing_account" always;',
    locations => <<'END');
    billing on;
    billing_account $http_x_account;
    billing_unknown_account create;
    location /plain/ { proxy_pass http://app; }
    location /seen/ { set $before $http_x_account; proxy_pass http://app; }
    location /set/ { set $http_x_account chosen; proxy_pass http://app; }
    location /mapped/ { billing_account $http_x_mapped; proxy_pass http://app; }
    location /host/ { billing_account $http_host; proxy_pass http://app; }
END
my $host = $world->host;

sub ask($path, @lines) {
    my $socket = $host->connect;
    print $socket join "\r\n", "GET $path HTTP/1.1", 'Connection: close', @lines, '', '';
    local $/;
    my $answer = <$socket>;
    my %field = $answer =~ /^([\w-]+): *(.*?)\r$/mg;
    return ($answer =~ m{^HTTP/1.1 (\d+)}, $field{'X-Ours'} // '', $field{'X-Nginx'} // '');
}

for my $case (
    ['its name', 'X-Account: one'], ['other letters', 'x-aCCOUNT: one'], ['an underscore', 'X_Account: one'],
    ['after others of equal length', 'X-Accent1: two', 'X-Account: one'],
    ['twenty fields before it', (map { "X-Field-$_: two" } 1 .. 20), 'X-Account: one'],
) {
    my ($title, @lines) = @$case;
    my ($status, $ours, $nginx) = ask('/plain/x', 'Host: here', @lines);
    is $status, 200, "$title: passes";
    is $ours, 'one', "$title: is the account";
    is $nginx, 'one', "$title: as nginx reads it";
}
is((ask('/plain/x', 'Host: here'))[0], 401, 'no field: nobody');
is((ask('/plain/x', 'Host: here', 'X-Account:'))[0], 401, 'an empty field: nobody');
for my $path ('/plain/x', '/seen/x') {
    is((ask($path, 'Host: here', @$_))[0], 400, "A2: several fields are no account: @$_, $path") for
        ['X-Account: one', 'X-Account: two'], ['X-Account: one', 'X-Account: one'], ['X-Account: one', 'x_account: two'],
        ['x_account: one', 'X_Account: two'], ['X-Account: ', 'X-Account: two'], ['X-Account: one', (map { "X-Field-$_: two" } 1 .. 30), 'X-ACCOUNT: two'];
}
is((ask('/seen/x', 'Host: here', 'X-Account: one'))[1], 'one', 'one that nginx has looked at before');
is $world->app->count('/plain/x') + $world->app->count('/seen/x'), 6, 'A2: none of them has reached the application';
my ($status, $ours);
($status, $ours) = ask('/plain/x', 'Host: here', 'X-Account: o<ne');
is "$status $ours", '400 ', 'an id that can be none is refused, and shown in no variable';
($status, $ours) = ask('/plain/x', 'Host: here', 'X-Account: ' . 'o' x 129);
is "$status $ours", '400 ', 'nor one that is too long';
is((ask('/set/x', 'Host: here', 'X-Account: one'))[1], 'chosen', '`set` has given the variable another value');
is((ask('/mapped/x', 'Host: here', 'X-Mapped: one'))[1], 'mapped', 'a map has its name');
is((ask('/host/x', 'Host: here'))[1], 'here', "a field that nginx's own variable knows otherwise");

done_testing;
