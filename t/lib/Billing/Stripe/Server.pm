# The stand-in's process: one port for the API and the hosted pages, one for the test that controls it.
package Billing::Stripe::Server;
use v5.36;
use Billing::Stripe::Account ();
use Billing::Stripe::Api ();
use Billing::Stripe::Control ();
use Billing::Stripe::Faults ();
use Billing::Stripe::Objects ();
use Billing::Stripe::Pages ();
use Billing::Stripe::Schema ();
use Mojo::IOLoop ();
use Mojo::JSON qw(decode_json encode_json true);
use Mojo::Server::Daemon ();
use Mojolicious ();

# Options in the file: key, version, port, control_port, schemas (a file, or null for none), portal (its default configuration is there).
sub serve($file) {
    open my $in, '<:raw', $file or die "$file: $!\n";
    local $/;
    my $self = __PACKAGE__->new(decode_json(scalar <$in>)->%*);
    $self->{control_daemon} = daemon($self->application(sub ($c) { $self->control($c) }), $self->{control_port});
    $self->open_port;
    Mojo::IOLoop->start;
    return;
}

sub new($class, %option) {
    my $self = bless {%option, faults => Billing::Stripe::Faults->new}, $class;
    my $schemas = defined $option{schemas} ? Billing::Stripe::Schema::stripe_schemas($option{schemas}) : undef;
    $self->{account} = Billing::Stripe::Account->new(key => $option{key}, version => $option{version});
    $self->{account}{address} = "http://127.0.0.1:$option{port}";
    $self->{api} = Billing::Stripe::Api->new(account => $self->{account}, schemas => $schemas);
    $self->{account}->add(Billing::Stripe::Objects::portal_configuration($self->{account}, is_default => true)) if $option{portal} // 1;
    $self->{controls} = Billing::Stripe::Control->new($self);
    return $self;
}

sub application($self, $code) {
    my $app = Mojolicious->new;
    $app->secrets(['stand-in']);
    $app->log->level('warn');
    $app->routes->any('/*rest' => {rest => ''} => $code);
    return $app;
}

sub daemon($app, $port) {
    my $daemon = Mojo::Server::Daemon->new(app => $app, listen => ["http://127.0.0.1:$port"], silent => 1, inactivity_timeout => 300,
        max_clients => 2000);
    $daemon->start;
    return $daemon;
}

# --- the API's port ---

# Listens, or closes everything so that connections are refused.
sub open_port($self) {
    $self->{api_daemon} //= daemon($self->application(sub ($c) { $self->receive($c) }), $self->{port});
    return;
}

sub close_port($self) {
    delete $self->{api_daemon};
    return;
}

sub receive($self, $c) {
    my $path = $c->req->url->path->to_string;
    return $self->call($c, $path) if $path =~ m{^/v[12](?:/|$)};
    return Billing::Stripe::Pages::show($self->{account}, $c, $path);
}

sub call($self, $c, $path) {
    $c->render_later;
    my $request = $c->req;
    my $call = $self->{api}->begin(method => $request->method, path => $path, query => $request->url->query->to_string,
        body => $request->body,
        headers => {map { lc($_) => $request->headers->header($_) } $request->headers->names->@*});
    my $fault = $self->{faults}->take($call->{method}, $path);
    $call->{seen}{fault} = $fault if $fault;
    my $before = $fault && !$fault->{after};
    return $self->fail($c, $call, $fault) if $before && !$fault->{delay};
    return $self->reply($c, $call) if !$self->{api}->admit($call);
    my $go = sub {
        return $self->fail($c, $call, $fault) if $before && grep { defined $fault->{$_} } qw(status hang drop garbage);
        $self->{api}->carry_out($call);
        return $self->reply($c, $call) if !$fault || $before;
        return $self->fail($c, $call, $fault) if !$fault->{delay};
        Mojo::IOLoop->timer($fault->{delay} => sub { $self->fail($c, $call, $fault) });
    };
    return $before ? Mojo::IOLoop->timer($fault->{delay} => $go) : $go->();
}

# What the fault says happens to the answer.
sub fail($self, $c, $call, $fault) {
    if (defined $fault->{status}) {
        my ($status, $headers, $body) = Billing::Stripe::Faults::answer($fault);
        return $self->reply($c, $call) if $fault->{saved} && !$call->{params} && !$self->{api}->admit($call);
        $self->{api}->answer_with($call, $status, $headers, $body);
        $self->{api}->keep($call, $fault->{saved}) if $fault->{saved} || !$fault->{after};
        return $self->reply($c, $call);
    }
    $self->{api}->keep($call, 0) if !$fault->{after};
    return if $fault->{hang};
    if ($fault->{drop}) {
        Mojo::IOLoop->remove($c->tx->connection);
        return;
    }
    @$call{qw(status answer)} = (200, $fault->{garbage}) if defined $fault->{garbage};
    return $self->reply($c, $call);
}

sub reply($self, $c, $call) {
    $call->{seen}{status} = $call->{status};
    return if !$c->tx;    # the caller has left
    my $headers = $self->{api}->headers($call);
    $c->res->headers->header($_ => $headers->{$_}) for keys %$headers;
    $c->render(data => $call->{answer}, status => $call->{status});
    return;
}

# --- the test's port ---

# POST {"call": name, "with": {arguments}} is answered by {"result": ...} or {"error": text}.
sub control($self, $c) {
    $c->render_later;
    my $wanted = decode_json($c->req->body);
    my $answer = sub ($body) { $c->render(data => encode_json($body), format => 'json') };
    my $result = eval { $self->{controls}->run($wanted->{call}, %{$wanted->{with} // {}}) };
    return $answer->({error => error_text($@)}) if $@;
    return $answer->({result => $result}) if ref($result) !~ /^Mojo::Promise/;
    $result->then(sub ($value) { $answer->({result => $value}) })->catch(sub ($error) { $answer->({error => error_text($error)}) });
    return;
}

sub error_text($error) { ref $error ? $error->{message} : $error }

1;
